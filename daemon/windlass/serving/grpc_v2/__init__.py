"""The Open Inference Protocol v2 over gRPC, on a port of its own. Outside the eight hops.

    inference.proto     the protocol; inference_pb2 is generated from it by `make proto`
    messages            requests to tensors, results to messages
    server              which call is whose

Imported only when a port is given: the library costs memory and a fifth of a second.
"""
