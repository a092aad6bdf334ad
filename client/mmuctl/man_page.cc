#include "client/mmuctl/man_page.h"

#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/mmuctl/command_tree.h"
#include "client/text/error_text.h"
#include "proto/mmud/v1/default_address.h"
#include "proto/mmud/v1/release.h"

namespace mmud::client {
namespace {

// Escapes text so that groff prints it unchanged: hyphens stay hyphens that can
// be copied, and no line begins with a groff request.
std::string Escape(absl::string_view text) {
  std::string escaped;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!escaped.empty()) escaped += '\n';
    if (absl::StartsWith(line, ".") || absl::StartsWith(line, "'")) {
      escaped += "\\&";
    }
    absl::StrAppend(&escaped,
                    absl::StrReplaceAll(line, {{"\\", "\\e"}, {"-", "\\-"}}));
  }
  return escaped;
}

std::string Heading(absl::string_view macro, absl::string_view title) {
  return absl::StrCat(macro, " \"", Escape(title), "\"\n");
}

// Formats lines that groff must not fill.
std::string Verbatim(absl::string_view lines) {
  return absl::StrCat(".PP\n.nf\n",
                      Escape(absl::StripTrailingAsciiWhitespace(lines)),
                      "\n.fi\n");
}

std::string Terms(const std::vector<const CLI::Option*>& options) {
  std::string text;
  for (const CLI::Option* option : options) {
    absl::StrAppend(&text, ".TP\n\\fB", Escape(TermOf(*option)), "\\fR\n",
                    Escape(option->get_description()), "\n");
  }
  return text;
}

}  // namespace

std::string ManPage(const CLI::App& root) {
  std::string page = absl::StrCat(
      ".\\\" Made by mmuctl man.\n.TH MMUCTL 1 \"\" \"mmuctl ", v1::kRelease,
      "\" \"mmud\"\n", Heading(".SH", "NAME"),
      "mmuctl \\- controls the daemon mmud\n", Heading(".SH", "SYNOPSIS"),
      Escape(UsageOf(root)), "\n", Heading(".SH", "DESCRIPTION"),
      Escape(root.get_description()), "\n", Heading(".SH", "OPTIONS"),
      "These options apply to every command and may be given before or after "
      "it.\n",
      Terms(FlagsOf(root)), Heading(".SH", "COMMANDS"));
  ForEachCommand(root, [&](const CLI::App& command) {
    if (&command == &root) return;
    absl::StrAppend(&page, Heading(".SS", FullName(command)),
                    Escape(command.get_description()), "\n.PP\n\\fB",
                    Escape(UsageOf(command)), "\\fR\n",
                    Terms(PositionalsOf(command)), Terms(FlagsOf(command)));
    if (!command.get_aliases().empty()) {
      absl::StrAppend(&page, ".PP\nAlso: ",
                      Escape(absl::StrJoin(command.get_aliases(), ", ")), "\n");
    }
    if (!command.get_footer().empty()) {
      absl::StrAppend(&page, Verbatim(command.get_footer()));
    }
  });
  absl::StrAppend(
      &page, Heading(".SH", "EXIT STATUS"), Verbatim(ExitCodeHelp()),
      Heading(".SH", "ENVIRONMENT"),
      ".TP\n"
      "\\fBMMUD_ADDRESS\\fR\n"
      "Address of the daemon, unless \\-\\-address is given; the default is ",
      Escape(v1::kDefaultAddress),
      ".\n"
      ".TP\n"
      "\\fBCOLUMNS\\fR\n"
      "Width of the screen, if the terminal does not report it.\n",
      Heading(".SH", "EXAMPLES"), Verbatim(root.get_footer()));
  return page;
}

}  // namespace mmud::client
