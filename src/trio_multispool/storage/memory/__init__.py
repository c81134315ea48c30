"""The store in memory, for tests of programs that use spools: no files, and no call that waits. Private."""
