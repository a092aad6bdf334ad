"""mmud_cc_proto: protoc and the gRPC plugin of Debian over .proto files.

In proto/mmud/v1/BUILD.bazel:

    load("//proto:cc_proto.bzl", "mmud_cc_proto")

    mmud_cc_proto(
        name = "mmud_cc_proto",
        srcs = ["vm.proto", "stats.proto"],
        visibility = ["//visibility:public"],
        deps = ["//proto/google/rpc:error_details_cc_proto"],
    )

The import root is this folder, in .proto files and in C++ alike:

    import "mmud/v1/vm.proto";
    #include "mmud/v1/vm.pb.h"
    #include "mmud/v1/vm.grpc.pb.h"

`deps` are other mmud_cc_proto targets. google/protobuf/*.proto needs no entry:
protoc finds it in /usr/include. With `grpc = False` only messages are made.
"""

ProtoFilesInfo = provider(
    doc = "The .proto files of a target and of all it depends on.",
    fields = {"transitive": "depset of File"},
)

_ROOT = "proto/"

def _proto_files_impl(ctx):
    return [ProtoFilesInfo(transitive = depset(
        ctx.files.srcs,
        transitive = [d[ProtoFilesInfo].transitive for d in ctx.attr.deps],
    ))]

_proto_files = rule(
    implementation = _proto_files_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"]),
        "deps": attr.label_list(providers = [ProtoFilesInfo]),
    },
)

def _generate_impl(ctx):
    sources = []
    headers = []
    for src in ctx.files.srcs:
        if not src.path.startswith(_ROOT):
            fail("%s is not below %s" % (src.path, _ROOT))
        stem = src.basename[:-len(".proto")]
        for kind in [".pb", ".grpc.pb"] if ctx.attr.grpc else [".pb"]:
            sources.append(ctx.actions.declare_file(stem + kind + ".cc"))
            headers.append(ctx.actions.declare_file(stem + kind + ".h"))
    out = ctx.bin_dir.path + "/" + _ROOT
    args = ctx.actions.args()
    args.add("--proto_path=" + _ROOT)
    args.add("--proto_path=/usr/include")
    args.add("--cpp_out=" + out)
    if ctx.attr.grpc:
        args.add("--plugin=protoc-gen-grpc=/usr/bin/grpc_cpp_plugin")
        args.add("--grpc_out=" + out)
    args.add_all(ctx.files.srcs)
    ctx.actions.run(
        executable = "/usr/bin/protoc",
        arguments = [args],
        inputs = depset(transitive = [
            ctx.attr.files[ProtoFilesInfo].transitive,
        ]),
        outputs = sources + headers,
        mnemonic = "Protoc",
        progress_message = "Generating C++ from %{label}",
    )
    return [
        DefaultInfo(files = depset(sources + headers)),
        OutputGroupInfo(
            sources = depset(sources),
            headers = depset(headers),
        ),
    ]

_generate = rule(
    implementation = _generate_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = [".proto"]),
        "files": attr.label(providers = [ProtoFilesInfo]),
        "grpc": attr.bool(default = True),
    },
)

def mmud_cc_proto(name, srcs, deps = [], grpc = True, **kwargs):
    """One cc_library of the C++ made from `srcs` in one run of protoc."""
    visibility = kwargs.pop("visibility", ["//visibility:private"])
    _proto_files(
        name = name + "_files",
        srcs = srcs,
        visibility = visibility,
        deps = [d + "_files" for d in deps],
    )
    _generate(
        name = name + "_generated",
        srcs = srcs,
        files = ":" + name + "_files",
        grpc = grpc,
        visibility = ["//visibility:private"],
    )
    for group in ["sources", "headers"]:
        native.filegroup(
            name = name + "_" + group,
            srcs = [":" + name + "_generated"],
            output_group = group,
            visibility = ["//visibility:private"],
        )
    native.cc_library(
        name = name,
        srcs = [":" + name + "_sources"],
        hdrs = [":" + name + "_headers"],
        # Generated code is compiled without the project's warnings.
        copts = ["-w"],
        visibility = visibility,
        deps = deps + [
            "//proto:import_root",
            "@debian//:grpcpp" if grpc else "@debian//:protobuf",
        ],
        **kwargs
    )
