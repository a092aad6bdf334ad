#!/usr/bin/python3
"""Prints the state of a VM, or the reason of the error.

usage: docs/examples/show_vm.py ADDRESS VM

ADDRESS is unix:/path or host:port. docs/other-languages.md tells how to make the
modules that this imports, and where Python has to find them.
"""

import sys

import grpc
from google.rpc import error_details_pb2, status_pb2
from mmud.v1 import vm_service_pb2, vm_service_pb2_grpc


def reason_of(error):
    """ErrorInfo.reason, which is one of the names in error_reasons.proto."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        for detail in status_pb2.Status.FromString(value).details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return info.reason
    return error.code().name


def main(address, vm):
    with grpc.insecure_channel(address) as channel:
        service = vm_service_pb2_grpc.VmServiceStub(channel)
        try:
            found = service.GetVm(vm_service_pb2.GetVmRequest(name=vm),
                                  timeout=60).vm
        except grpc.RpcError as error:
            print(f"{vm}: {reason_of(error)}")
            return
    state = vm_service_pb2.VmState.Name(found.state)
    print(f"{found.name}: {state}, {found.memory_size_bytes} bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
