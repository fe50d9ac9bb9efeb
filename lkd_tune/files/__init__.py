"""Files and folders on disk: atomic writes, the cache, digests, full disks, tombstones."""
