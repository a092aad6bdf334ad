"""The native C++ rules of Bazel 4.2.3 under the names of rules_cc."""

cc_binary = native.cc_binary
cc_import = native.cc_import
cc_libc_top_alias = native.cc_libc_top_alias
cc_library = native.cc_library
cc_proto_library = native.cc_proto_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
fdo_prefetch_hints = native.fdo_prefetch_hints
fdo_profile = native.fdo_profile
objc_library = native.objc_library

def _nothing_impl(_ctx):
    return [platform_common.TemplateVariableInfo({"CC_FLAGS": ""})]

# Bazel's own packages load these rules. No package of this project uses them.
cc_flags_supplier = rule(implementation = _nothing_impl)
compiler_flag = rule(implementation = _nothing_impl)
