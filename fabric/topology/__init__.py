"""Topologies: the plain values that nodes read (``spec``) and the YAML that people write (``yaml_model``)."""
