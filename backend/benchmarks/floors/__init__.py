"""The bare parts that the platform is compared with, each a server in a process of its own."""
