"""Several processes for one Target: one supervisor, and workers that accept on its socket.

    supervisor   start and stop of the supervisor
    fleet        what is deployed, and how many workers: the truth, looked at again and again
    records      one Deployment as the fleet knows it; steps, what a worker lacks of it, pure
    worker       one worker, seen from the supervisor
    words        what the two say to one another
    led          the worker's side of it
    sharing      the listening sockets: one accept at a time, and how they are handed on

A worker is the serving process as it is for itself, with a socket that it has inherited and a
supervisor that decides for all. Workers need no supervisor to answer requests: one that was killed
is followed by another, which finds them by their folders and gets the socket from them.
"""
