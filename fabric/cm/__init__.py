"""The InfiniBand connection manager: sets reliable connections up and tears them down with datagrams on queue pair 1.

``states`` has the table, ``manager`` the engine that others use; the rest are its parts.
"""
