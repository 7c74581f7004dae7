"""Every event at every step of a wait: what is raised, and what becomes of the connection.

A step is a message between the client and its server, in either direction, cancel requests
among them: a proxy passes them on one at a time, and does something in between while the client
is asleep. So each case is the same each time, and none depends on a clock; a deadline that has
passed too early, on a busy machine, is set again.
"""
