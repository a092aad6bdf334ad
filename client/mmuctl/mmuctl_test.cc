// The command line as a user sees it: help, usage errors, exit codes.

#include "client/mmuctl/mmuctl.h"

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "client/mmuctl/fake_daemon_test_util.h"
#include "client/mmuctl/run_line_test_util.h"
#include "client/text/error_text.h"
#include "client/text/message_json.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "proto/mmud/v1/default_address.h"
#include "proto/mmud/v1/release.h"

namespace mmud::client {
namespace {

// Every command and group, as words behind "mmuctl".
std::vector<std::vector<std::string>> AllCommands() {
  std::set<std::vector<std::string>> all = {{}};
  const std::string table = RunLine({"help", "--all"}).out;
  for (const absl::string_view line : absl::StrSplit(table, '\n')) {
    std::vector<std::string> words =
        absl::StrSplit(line.substr(0, line.find("  ")), ' ', absl::SkipEmpty());
    if (words.size() < 2 || words[0] != "mmuctl") continue;
    for (size_t size = 1; size < words.size(); ++size) {
      all.insert({words.begin() + 1, words.begin() + 1 + size});
    }
  }
  return {all.begin(), all.end()};
}

TEST(MmuctlHelpTest, EveryLevelHasHelpWithExamplesIn80Columns) {
  const auto commands = AllCommands();
  EXPECT_GT(commands.size(), 50u);
  for (const std::vector<std::string>& command : commands) {
    std::vector<std::string> line = command;
    line.push_back("--help");
    const Result result = RunLine(line);
    const std::string name = absl::StrJoin(command, " ");
    EXPECT_EQ(result.exit_code, kExitOk) << name;
    EXPECT_TRUE(Contains(result.out, "examples:\n  ")) << name << result.out;
    EXPECT_TRUE(
        Contains(result.out,
                 absl::StrCat("usage: mmuctl", name.empty() ? "" : " ", name)))
        << name << result.out;
    EXPECT_EQ(result.err, "") << name;
    for (const absl::string_view text : absl::StrSplit(result.out, '\n')) {
      EXPECT_LE(text.size(), 80u) << name << ": " << text;
    }
    // `help COMMAND` prints the same text.
    line = command;
    line.insert(line.begin(), "help");
    EXPECT_EQ(RunLine(line).out, result.out) << name;
  }
}

TEST(MmuctlHelpTest, ListOfAllCommandsIsIn80Columns) {
  const std::string list = RunLine({"help", "--all"}).out;
  for (const absl::string_view line : absl::StrSplit(list, '\n')) {
    EXPECT_LE(line.size(), 80u) << line;
  }
  EXPECT_TRUE(
      Contains(list,
               "mmuctl vm update          Changes the labels of a VM, its "
               "limit on shadow pages,\n                          or the size "
               "of the pieces in which its stage-2 blocks\n"))
      << list;
}

TEST(MmuctlHelpTest, DiscardIsAboutPagesThatWereNotAcknowledged) {
  const std::string help = RunLine({"memslot", "delete", "--help"}).out;
  EXPECT_TRUE(Contains(help, "acknowledged")) << help;
  EXPECT_FALSE(Contains(help, "cleared")) << help;
}

TEST(MmuctlHelpTest, HelpOfWhatIsNoCommandNamesThoseThereAre) {
  const Result result = RunLine({"help", "split", "peek"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(result.err,
                       "mmuctl split has no command 'peek'; it has "
                       "start, update"))
      << result.err;
}

TEST(MmuctlHelpTest, VersionIsTheReleases) {
  const Result result = RunLine({"--version"});
  EXPECT_EQ(result.exit_code, kExitOk);
  EXPECT_EQ(result.out, absl::StrCat("mmuctl ", v1::kRelease, "\n"));
}

TEST(MmuctlHelpTest, TopLevelListsTheExitCodes) {
  EXPECT_TRUE(Contains(RunLine({"--help"}).out, ExitCodeHelp()));
}

TEST(MmuctlUsageTest, WrongCommandLinesSayWhereHelpIs) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{
           {},
           {"nonsense"},
           {"vm"},
           {"vm", "get"},
           {"vm", "get", "a", "b"},
           {"vm", "create", "a", "--memory", "4XB"},
           {"vm", "create", "a", "--memory", "1GiB", "--memslot", "0:0+1M"},
           {"vm", "create", "a", "--memory", "1G", "--host-page-size", "3m"},
           {"vm", "create", "a", "--memslot", "0:nothing"},
           {"vm", "create", "a", "--mmu", "tdb"},
           {"vm", "create", "a", "--guest-paging", "3level"},
           {"vm", "update", "a", "--label", "owner"},
           {"debug", "tables", "a", "--level", "6"},
           {"debug", "tables", "a", "--gfn", "1", "--range", "0+4K"},
           {"workload", "start", "a"},
           {"workload", "start", "a", "--pattern", "zipf", "--trace", "t"},
           {"dirty-log", "harvest", "a", "--clear-range", "4K"},
           {"split", "start", "a", "--max-lock-hold", "200"},
           {"split", "update", "a", "--max-pages-per-second", "many"},
           {"--timeout", "soon", "vm", "list"}}) {
    const Result result = RunLine(command);
    EXPECT_EQ(result.exit_code, kExitUsage) << result.err;
    EXPECT_TRUE(Contains(result.err, "error: ")) << result.err;
    EXPECT_TRUE(Contains(result.err, "--help\n")) << result.err;
    EXPECT_EQ(result.out, "");
  }
}

TEST(MmuctlUsageTest, UsageErrorNamesTheCommandItBelongsTo) {
  EXPECT_TRUE(Contains(RunLine({"vm", "get"}).err, "see mmuctl vm get --help"));
}

TEST(MmuctlUsageTest, UnknownCommandIsNamedWithThoseThatExist) {
  const struct {
    std::vector<std::string> line;
    const char* says;
  } kCases[] = {
      {{"dirty-log", "list"},
       "error: mmuctl dirty-log has no command 'list'; it has start, get, "
       "acquire, seal, read, peek, clear, ack, harvest, stop, rate\n"},
      {{"split", "list", "alpha"}, "mmuctl split has no command 'list'; it"},
      {{"nonsense"}, "mmuctl has no command 'nonsense'; it has vm, memslot,"},
      {{"--json", "vm", "show", "alpha"}, "mmuctl vm has no command 'show';"},
      {{"vm"},
       "error: mmuctl vm needs one of its commands: create, get, list, "
       "update, pause, resume, delete\n"},
      {{}, "error: mmuctl needs one of its commands: vm, memslot,"},
  };
  for (const auto& wrong : kCases) {
    const Result result = RunLine(wrong.line);
    EXPECT_EQ(result.exit_code, kExitUsage);
    EXPECT_TRUE(Contains(result.err, wrong.says)) << result.err;
  }
}

TEST(MmuctlUsageTest, UnknownOptionIsNamedWhateverElseIsMissing) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"mmuctl"},
                                             {"mmuctl", "vm"},
                                             {"mmuctl", "vm", "get"},
                                             {"mmuctl", "vm", "get", "a"},
                                             {"mmuctl", "vm", "list"}}) {
    for (const char* option : {"--nonsense", "-x", "--nonsense=1"}) {
      std::vector<std::string> line(command.begin() + 1, command.end());
      line.push_back(option);
      const Result result = RunLine(line);
      EXPECT_EQ(result.exit_code, kExitUsage);
      const auto last = command.end() - (command.back() == "a" ? 1 : 0);
      EXPECT_TRUE(Contains(
          result.err,
          absl::StrCat("error: ", absl::StrJoin(command.begin(), last, " "),
                       " has no option '", option, "'\n")))
          << result.err;
    }
  }
}

TEST(MmuctlUsageTest, WordThatIsNoChoiceIsNamedWithTheChoices) {
  const Result result =
      RunLine({"vm", "create", "a", "--memory", "1G", "--backing", "nothing"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(
      result.err, "'nothing' is not one of anonymous|memfd|metadata-only\n"))
      << result.err;
}

TEST(MmuctlUsageTest, NoMemoryIsNotASizeOfMemory) {
  const Result result = RunLine({"vm", "create", "a", "--memory", "0"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(result.err, "leave --memory out")) << result.err;
}

TEST(MmuctlUsageTest, DaemonThatIsNotThereHasItsOwnExitCode) {
  const Result result = RunLine({"--address", "unix:/nonexistent/mmud.sock",
                                 "--timeout", "1s", "vm", "list"});
  EXPECT_EQ(result.exit_code, kExitUnavailable) << result.err;
  EXPECT_TRUE(
      Contains(result.err, "is mmud running at unix:/nonexistent/mmud.sock?"))
      << result.err;
}

TEST(MmuctlUsageTest, BadAddressIsAWrongCommandLine) {
  const Result result = RunLine({"-a", "localhost", "vm", "list"});
  EXPECT_EQ(result.exit_code, kExitUsage);
  EXPECT_TRUE(Contains(result.err,
                       "address 'localhost' has no host or no port; give "
                       "unix:/path/of/socket or host:port, for example "
                       "unix:/run/mmud/mmud.sock or localhost:9443\n"))
      << result.err;
  // A command that needs no daemon ignores the bad address.
  EXPECT_EQ(RunLine({"-a", "localhost", "help"}).exit_code, kExitOk);
}

TEST(MmuctlUsageTest, LooksWhereMmudListensByDefault) {
  if (std::getenv("MMUD_ADDRESS") != nullptr) GTEST_SKIP();
  const Result help = RunLine({"--help"});
  EXPECT_TRUE(Contains(help.out, v1::kDefaultAddress)) << help.out;
}

TEST(MmuctlUsageTest, ErrorsAreJsonWhereJsonWasAskedFor) {
  for (const std::vector<std::string>& line :
       std::vector<std::vector<std::string>>{
           {"--json", "nonsense"}, {"vm", "get", "--json"}, {"--json"}}) {
    const Result result = RunLine(line);
    EXPECT_EQ(result.exit_code, kExitUsage);
    EXPECT_EQ(result.out, "");
    const Json json = Json::parse(result.err, nullptr, false);
    ASSERT_TRUE(json.is_object()) << result.err;
    EXPECT_EQ(json["error"]["exit_code"], kExitUsage);
    EXPECT_TRUE(Contains(json["error"]["fix"], "--help")) << result.err;
  }
}

TEST(MmuctlTest, ListsAreReadToTheirLastPage) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "list"});
  ASSERT_EQ(result.exit_code, kExitOk) << result.err;
  EXPECT_TRUE(Contains(result.out, "vms/a"));
  EXPECT_TRUE(Contains(result.out, "vms/b"));
  const Result slots = daemon.Run({"memslot", "list", "a"});
  EXPECT_TRUE(Contains(slots.out, "\n   3 ")) << slots.out;
  EXPECT_TRUE(Contains(slots.out, "\n   7 ")) << slots.out;
  const Result workloads = daemon.Run({"workload", "list"});
  EXPECT_TRUE(Contains(workloads.out, "vms/a  2026-11-18 11:06:40 UTC  90.0 s"))
      << workloads.out;
  EXPECT_TRUE(Contains(workloads.out, "vms/b ")) << workloads.out;
}

TEST(MmuctlTest, SlotsStandBehindTheVmInEveryCommand) {
  for (const std::vector<std::string>& command :
       std::vector<std::vector<std::string>>{{"memslot", "set"},
                                             {"memslot", "get"},
                                             {"memslot", "delete"},
                                             {"dirty-log", "ack"},
                                             {"dirty-log", "clear"},
                                             {"dirty-log", "peek"},
                                             {"dirty-log", "read"},
                                             {"dirty-log", "start"},
                                             {"dirty-log", "harvest"}}) {
    std::vector<std::string> line = command;
    line.push_back("--help");
    const std::string help = RunLine(line).out;
    EXPECT_TRUE(Contains(help, "VM SLOT\n") || Contains(help, "VM [SLOT]\n") ||
                Contains(help, "VM [SLOT...]\n"))
        << help;
    EXPECT_FALSE(Contains(help, "--slot ")) << help;
  }
}

TEST(MmuctlTest, ListsHaveAShortName) {
  FakeDaemon daemon;
  EXPECT_EQ(daemon.Run({"vm", "ls"}).out, daemon.Run({"vm", "list"}).out);
  EXPECT_EQ(daemon.Run({"op", "ls"}).out, daemon.Run({"op", "list"}).out);
  EXPECT_EQ(daemon.Run({"workload", "ls"}).out,
            daemon.Run({"workload", "list"}).out);
}

TEST(MmuctlTest, ErrorsOfTheDaemonGoToStderrWithAWayOut) {
  FakeDaemon daemon;
  const Result result = daemon.Run({"vm", "get", "alpha"});
  EXPECT_EQ(result.exit_code, kExitNotFound);
  EXPECT_EQ(result.out, "");
  EXPECT_EQ(result.err,
            absl::StrCat("error: vms/alpha does not exist\n"
                         "  reason:  VM_NOT_FOUND\n"
                         "  fix:     list the VMs: mmuctl --address ",
                         daemon.address(), " vm list\n"));
}

TEST(MmuctlTest, TraceFileThatIsNotThereNeedsNoDaemon) {
  EXPECT_EQ(RunLine({"trace", "info", "/nonexistent/x.trace"}).exit_code,
            kExitNotFound);
}

}  // namespace
}  // namespace mmud::client
