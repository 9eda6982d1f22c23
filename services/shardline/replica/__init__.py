"""A replica: one process, one device, one or more models or stages."""
