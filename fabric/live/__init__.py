"""The live drivers: the same engines as in the simulator, on the monotonic clock, between processes joined by zmq."""
