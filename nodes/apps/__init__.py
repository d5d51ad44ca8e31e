"""Built-in applications: ordinary programs on ``provider.socket`` that a lab can run on its hosts."""
