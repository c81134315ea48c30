"""The library on real file systems: devices copied and replayed at every moment, full disks, and disks that fail.

Run by `nox -s filesystems`, as root; pytest collects nothing here. Rooms, lowest first:

- `needs` what must be installed; `kinds` the file systems; `images` what is on a device at one moment; `devices` loop
  devices and mounts; `report` tables of figures
- `ledger` what may be found at each moment; `workload` the operations; `moods` what else goes on; `checking` what is
  found on an image, and whether it may be
- `snapshots`; `recorder` and `replay`; `trouble`, `full` and `failing`; `plain`: the proofs. `__main__` runs them
"""
