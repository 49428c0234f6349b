"""The data plane: a process of its own that serves Deployments. It outlives the daemon.

    __main__     start and stop
    process      the state folder's files, the lock, the sockets
    listener     the public socket's connections
    http         HTTP/1.1 between a socket and the routes
    front        which request is whose
    pages        what is answered at once: health, metadata, statistics
    inference    the one way in for inference requests, wherever they come from
    reading      request bodies to tensors, quickly; writing, results to bodies
    oip          the protocol itself, pure; rows, simpler bodies
    batching     the queue of one model: what waits together runs together
    cost, lanes  what a run costs; the threads of heavy models
    model        one loaded ONNX model
    tensors      the protocol's datatypes, pure
    deployments  which version of what is in force: load, swap, drain
    admin        HTTP on a unix socket: what the local adapter calls at hops 5 and 7
    orders       what it says there
    numbers      counters; metrics, the page for Prometheus

Nothing here imports the rest of the daemon, and the daemon imports nothing from here: they meet on
the command line, in the state folder's files and on the admin socket.
"""
