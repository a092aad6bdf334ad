"""integration_test: a cc_test that starts the daemon."""

def integration_test(name, data = [], deps = [], tags = []):
    native.cc_test(
        name = name,
        size = "medium",
        srcs = [name + ".cc"],
        data = data,
        # Not in the sandbox: the test makes sockets, signals and process
        # groups.
        tags = ["no-sandbox"] + tags,
        deps = deps + [
            "//proto/google/longrunning:longrunning_cc_proto",
            "//proto/google/rpc:rpc_cc_proto",
            "//proto/mmud/lab/v1:mmud_lab_cc_proto",
            "//proto/mmud/v1:mmud_cc_proto",
            "//tests/integration:child_process",
            "//tests/integration:daemon",
            "//tests/integration:guest",
            "//tests/integration:test_client",
            "@debian//:absl",
            "@debian//:grpcpp",
            "@debian//:gtest",
            "@debian//:gtest_main",
            "@debian//:protobuf",
        ],
    )
