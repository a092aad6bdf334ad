"""program_output: a file with what a program of this workspace prints."""

def _program_output_impl(ctx):
    ctx.actions.run_shell(
        outputs = [ctx.outputs.out],
        tools = [ctx.attr.program[DefaultInfo].files_to_run],
        command = '"$1" $2 > "$3"',
        arguments = [
            ctx.executable.program.path,
            ctx.attr.arguments,
            ctx.outputs.out.path,
        ],
    )

program_output = rule(
    implementation = _program_output_impl,
    attrs = {
        # A genrule would compile its tool and the tool's dependencies once more
        # in the configuration for tools.
        "program": attr.label(executable = True, cfg = "target", mandatory = True),
        "arguments": attr.string(),
        "out": attr.output(mandatory = True),
    },
)
