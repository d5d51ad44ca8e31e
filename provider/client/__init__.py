"""The process half: this process's connection to its host's agent, and the SPI calls that go over it."""
