"""The simulator: the same engines in virtual time, all in one process."""
