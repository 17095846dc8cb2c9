"""Around the connector: arms read straight from the pool, contests of finished selections, exports others can load."""
