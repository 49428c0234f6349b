"""The data plane: a process of its own that serves Deployments. It outlives the daemon.

    __main__     start and stop
    process      the state folder's files, the lock, the sockets
    front        public HTTP: Open Inference Protocol v2
    admin        HTTP on a unix socket: what the local adapter calls at hops 5 and 7
    deployments  which version of what is in force: load, swap, drain
    model        one loaded ONNX model
    inference    one request on one model
    oip          the protocol itself, pure
    tensors      its datatypes, pure
    metrics      numbers for Prometheus

Nothing here imports the rest of the daemon, and the daemon imports nothing from here: they meet on
the command line, in the state folder's files and on the admin socket.
"""
