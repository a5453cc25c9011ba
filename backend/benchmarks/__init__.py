"""What the platform costs on top of the parts it is made of: `python -m benchmarks [NAME…]`.

Each benchmark does the same work twice in one run, with the platform (ours) and with the bare parts
(the floor), and prints the ratio. CPU time of processes is preferred to wall time: it hardly depends
on what else the machine does. A benchmark is one file with one function, registered by a decorator.
"""
