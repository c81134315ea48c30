"""What `nox -s bench` runs: how the library stands beside its peers and beside the bare system calls.

The rooms, from the bottom:

- `work`: what a process is asked to do, and what it answers; `systems/`: each system that can do it, this library, the
  bare system calls (the limit), SQLite, and the peers, each behind the same small interface; `probes`: what is measured
  of this library alone.
- `worker`: the process in which one measurement happens; `crew`: starts such processes, lets them go at the same
  moment, and makes a rate of what they answer.
- `places`: a fresh file system for each round; `servers`: a PostgreSQL server on one, and a fresh database in it.
- `cases` and `served`: what is measured, as `setting`s, on which places; `runner`: runs the rounds, in which the
  systems take turns.
- `report`: what was measured, as a JSON file; `targets`: what is to be reached; `tables` and `plots` show it.
"""
