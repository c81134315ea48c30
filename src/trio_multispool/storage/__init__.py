"""The blocking store of entries: the `Storage` protocol, and its implementation on a directory.

Nothing in this package awaits, and nothing outside it makes a system call on the spool. Rooms, lowest first:

- `protocol` what a store does; `traces` what examining one finds; `syscalls` every system call; `filesystem` which file
  systems are trusted;
  `trouble` what an `OSError` means
- `layout` where things lie; `files` single files; `format` `.spool.json`; `locks` the registry lock; `commits` the
  calls that commit a step; `syncing` what is synced when; `claims` what a store hands out; `context` what the parts
  share
- `reserving`, `settling`, `direct`, `data`, `recovery`, `temporaries`, `inventory`, `examining`, `mending` the
  operations; `creation` opening, making and refusing a spool
- `directory` the whole of it, as a `Storage`
"""
