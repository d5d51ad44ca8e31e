"""Labs: a topology that runs, started and ended by an engine. The process engine needs no root and no containers."""
