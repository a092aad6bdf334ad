// The daemon's messages about its flags and its config file.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "gtest/gtest.h"
#include "mmud/v1/vm_service.grpc.pb.h"
#include "tests/integration/daemon.h"

namespace mmud::integration {
namespace {

class ConfigTest : public ::testing::Test {
 protected:
  ProgramResult Run(std::vector<std::string> flags) {
    flags.insert(flags.begin(), MmudPath());
    return RunProgram(flags, directory_.File("mmud"));
  }
  // Runs a daemon with this config file. The other flags are valid.
  ProgramResult RunWithConfig(const std::string& text) {
    const std::string path = directory_.File("mmud.json");
    WriteFile(path, text);
    return Run(
        {"--config=" + path, "--listen=unix:" + directory_.File("mmud.sock")});
  }

  ScratchDirectory directory_;
};

TEST_F(ConfigTest, FileSetsWhatNoFlagSets) {
  const std::string path = directory_.File("mmud.json");
  WriteFile(path, R"({"max_vms": 5, "log_format": "json"})");
  Daemon from_file({"--config=" + path});
  const auto capabilities = from_file.client().Must(
      &v1::VmService::Stub::GetCapabilities, v1::GetCapabilitiesRequest());
  EXPECT_EQ(capabilities.max_vms_count(), 5);
  EXPECT_TRUE(absl::StrContains(from_file.process().Err(), "{\""))
      << from_file.process().Err();
  Daemon with_flag({"--config=" + path, "--max-vms=6"});
  EXPECT_EQ(with_flag.client()
                .Must(&v1::VmService::Stub::GetCapabilities,
                      v1::GetCapabilitiesRequest())
                .max_vms_count(),
            6);
}

TEST_F(ConfigTest, HelpIsIn80Columns) {
  const std::string help = Run({"--help"}).out;
  EXPECT_TRUE(absl::StrContains(help, "--drain_timeout")) << help;
  for (const absl::string_view line : absl::StrSplit(help, '\n')) {
    EXPECT_LE(line.size(), 80u) << line;
  }
}

TEST_F(ConfigTest, BadFilesAreRefusedWithTheKeyAndTheRule) {
  const struct {
    const char* text;
    std::vector<std::string> says;
  } kCases[] = {
      {"{", {"mmud.json is not JSON"}},
      {"[]", {"one JSON object"}},
      {R"({"max_vm": 8})", {"unknown key \"max_vm\"", "max_vms"}},
      {R"({"max_vms": 0})", {"max_vms is 0", "from 1 to 10000"}},
      {R"({"max_vms": "many"})", {"max_vms is \"many\"", "a whole number"}},
      {R"({"log_level": "loud"})", {"log_level is \"loud\"", "debug, info"}},
      {R"({"drain_timeout": "soon"})", {"drain_timeout", "10s"}},
      {R"({"listen_tcp": "0.0.0.0:0"})",
       {"0.0.0.0:0", "--allow_remote_plaintext"}},
      {R"({"listen_tcp": "127.0.0.1"})", {"listen_tcp", "HOST:PORT"}},
      {R"({"metrics_address": "nowhere:1"})", {"metrics_address", "HOST:PORT"}},
  };
  for (const auto& wrong : kCases) {
    const ProgramResult result = RunWithConfig(wrong.text);
    EXPECT_TRUE(result.exit_code == 1 || result.exit_code == 2)
        << wrong.text << " " << result.exit_code;
    EXPECT_TRUE(absl::StartsWith(result.err, "mmud: ")) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1)
        << result.err;
    for (const std::string& part : wrong.says) {
      EXPECT_TRUE(absl::StrContains(result.err, part))
          << part << " is not in: " << result.err;
    }
  }
}

TEST_F(ConfigTest, UnreadableFileIsNamedWithTheCause) {
  for (const auto& [path, cause] :
       {std::pair<std::string, std::string>{directory_.File("none.json"),
                                            "No such file or directory"},
        {directory_.path(), "directory"}}) {
    const ProgramResult result = Run({"--config=" + path});
    EXPECT_EQ(result.exit_code, 2) << result.err;
    EXPECT_TRUE(absl::StrContains(result.err, path)) << result.err;
    EXPECT_TRUE(absl::StrContains(result.err, cause)) << result.err;
  }
}

TEST_F(ConfigTest, BadFlagsAreRefusedWithTheirName) {
  const struct {
    std::vector<std::string> flags;
    const char* says;
  } kCases[] = {
      {{"--listen=/tmp/x"}, "listen is \"/tmp/x\""},
      {{"--listen=unix:relative"}, "absolute path"},
      {{"--listen=0.0.0.0:5555"}, "--listen_tcp"},
      {{"--listen=unix:/tmp/x", "--trace-dir=/nope"}, "trace_dir is \"/nope\""},
      {{"--listen=unix:/" + std::string(200, 'x')}, "201 bytes"},
      {{"--listen=unix:/nonexistent/mmud.sock"}, "/nonexistent/mmud.sock"},
      {{"--listen=unix:/tmp/x", "--max-vms=100000"}, "max_vms is 100000"},
      {{"--listen=unix:/tmp/x", "--max-vms=some"}, "max_vms"},
      {{"--no-such-flag=1"}, "no_such_flag"},
      {{"--listen=unix:/tmp/x", "stray"}, "unknown argument \"stray\""},
  };
  for (const auto& wrong : kCases) {
    const ProgramResult result = Run(wrong.flags);
    EXPECT_TRUE(result.exit_code == 1 || result.exit_code == 2)
        << wrong.says << " " << result.exit_code;
    EXPECT_TRUE(absl::StrContains(result.err, wrong.says))
        << wrong.says << " is not in: " << result.err;
  }
}

TEST_F(ConfigTest, SocketPathThatIsAFileIsLeftAlone) {
  const std::string path = directory_.File("precious");
  WriteFile(path, "contents");
  const ProgramResult result = Run({"--listen=unix:" + path});
  EXPECT_EQ(result.exit_code, 1);
  EXPECT_TRUE(absl::StrContains(result.err, "is no socket")) << result.err;
  EXPECT_EQ(ReadFile(path), "contents");
}

TEST_F(ConfigTest, HelpExplainsEveryFlag) {
  const ProgramResult result = Run({"--help"});
  const std::string text = result.out + result.err;
  for (const char* part : {"--listen", "--listen_tcp", "--metrics_address",
                           "--config", "--trace_dir", "--drain_timeout",
                           "SIGTERM", "unix:/run/mmud/mmud.sock"}) {
    EXPECT_TRUE(absl::StrContains(text, part)) << part << "\n" << text;
  }
  EXPECT_TRUE(absl::StrContains(text, "default: 64;")) << text;
  EXPECT_FALSE(absl::StrContains(text, "default: ;")) << text;
}

}  // namespace
}  // namespace mmud::integration
