"""The TCP/IP provider: sockets of the operating system behind the SPI, and their duplication to other processes.

Its handles are descriptors of the kernel (an IFS provider), so nothing of it lives in the agent, and the package may
touch the operating system. A duplicated socket is shared: both processes may use it at once, and its last descriptor
ends the connection.
"""
