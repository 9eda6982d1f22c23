"""One interleaved run of Shardline against its peers: same models, same machine, same load generator."""
