#include "server/config/config_loader.h"

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <map>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/reflection.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "proto/mmud/v1/default_address.h"
#include "server/config/config.h"
#include "server/config/config_options.h"
#include "server/config/flags.h"

namespace mmud {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Error(const std::string& json) {
  Config config;
  return std::string(ApplyJson(json, "f.json", &config).message());
}

std::string WriteFile(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/config.json";
  std::ofstream(path) << text;
  return path;
}

TEST(Config, TakesEveryTypeFromAFile) {
  Config config;
  ASSERT_TRUE(ApplyFile(WriteFile(R"({"listen": "unix:/s", "max_vms": 3,
      "drain_timeout": "2s", "enable_debug_service": true})"),
                        &config)
                  .ok());
  EXPECT_EQ(config.listen, "unix:/s");
  EXPECT_EQ(config.max_vms, 3);
  EXPECT_EQ(config.drain_timeout, absl::Seconds(2));
  EXPECT_TRUE(config.enable_debug_service);
  EXPECT_EQ(config.max_operations, 64);
}

TEST(Config, NamesAnUnknownKey) {
  EXPECT_THAT(Error(R"({"max_vm": 3})"),
              AllOf(HasSubstr("f.json"), HasSubstr("\"max_vm\""),
                    HasSubstr("max_vms")));
}

TEST(Config, NamesKeyValueAndRuleOfAWrongType) {
  EXPECT_THAT(Error(R"({"max_vms": "three"})"),
              AllOf(HasSubstr("max_vms"), HasSubstr("\"three\""),
                    HasSubstr("whole number")));
  EXPECT_THAT(Error(R"({"listen": 5})"),
              HasSubstr("listen is 5; it must be a"));
  EXPECT_THAT(Error(R"({"max_vms": [1]})"), HasSubstr("max_vms is \"[1]\""));
  EXPECT_THAT(Error(R"({"max_vms": 1.5})"), HasSubstr("max_vms is \"1.5\""));
  EXPECT_THAT(Error(R"({"drain_timeout": 5})"), HasSubstr("duration"));
}

TEST(Config, NamesTheRangeOfANumber) {
  EXPECT_THAT(Error(R"({"max_vms": 0})"), HasSubstr("from 1 to 10000"));
  EXPECT_THAT(Error(R"({"max_guest_memory_bytes": -1})"), HasSubstr("from 0"));
  EXPECT_THAT(Error(R"({"max_vms": 18446744073709551615})"),
              HasSubstr("at most"));
  EXPECT_THAT(Error(R"({"drain_timeout": "-1s"})"), HasSubstr("0 to 24h"));
  EXPECT_THAT(Error(R"({"log_format": "xml"})"), HasSubstr("text, json"));
}

TEST(Config, RefusesANumberThatNoTypeHolds) {
  EXPECT_THAT(Error(R"({"max_vms": 1e999})"),
              AllOf(HasSubstr("f.json"), HasSubstr("1e999")));
}

TEST(Config, SaysWhyAFileIsNotJson) {
  EXPECT_THAT(Error("{"), HasSubstr("f.json is not JSON"));
  EXPECT_THAT(Error("[]"), HasSubstr("one JSON object"));
}

TEST(Config, NamesAFileThatCannotBeRead) {
  Config config;
  EXPECT_THAT(std::string(ApplyFile("/nowhere/x.json", &config).message()),
              AllOf(HasSubstr("/nowhere/x.json"),
                    HasSubstr("No such file or directory")));
  EXPECT_FALSE(ApplyFile("/", &config).ok());
}

TEST(Config, AFlagWinsOverTheFile) {
  absl::FlagSaver saver;
  absl::SetFlag(&FLAGS_config, WriteFile(R"({"listen": "unix:/file",
                                             "max_vms": 3})"));
  absl::SetFlag(&FLAGS_listen, std::string("unix:/flag"));
  const auto config = LoadConfig();
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->listen, "unix:/flag");
  EXPECT_EQ(config->max_vms, 3);
}

TEST(Config, AFlagWithTheDefaultAsItsValueWinsOverTheFile) {
  absl::FlagSaver saver;
  absl::SetFlag(&FLAGS_config, WriteFile(R"({"listen": "unix:/file",
                                             "max_vms": 3})"));
  std::string error;
  ASSERT_TRUE(absl::FindCommandLineFlag("max_vms")->ParseFrom("64", &error));
  EXPECT_EQ(LoadConfig()->max_vms, 64);
}

TEST(Config, ChecksFlagsByTheSameRules) {
  absl::FlagSaver saver;
  absl::SetFlag(&FLAGS_max_vms, int64_t{0});
  EXPECT_THAT(std::string(LoadConfig().status().message()),
              HasSubstr("--max_vms is 0; it must be from 1"));
}

TEST(Config, ListensWhereClientsLookUnlessTold) {
  absl::FlagSaver saver;
  ASSERT_TRUE(LoadConfig().ok());
  EXPECT_EQ(LoadConfig()->listen, v1::kDefaultAddress);
  absl::SetFlag(&FLAGS_listen_tcp, std::string("127.0.0.1:0"));
  EXPECT_EQ(LoadConfig()->listen, "") << "TCP alone was asked for";
  absl::SetFlag(&FLAGS_listen, std::string("unix:/s"));
  EXPECT_EQ(LoadConfig()->listen, "unix:/s");
}

TEST(Config, SocketIsAnAbsolutePath) {
  absl::FlagSaver saver;
  absl::SetFlag(&FLAGS_listen, std::string("/run/mmud.sock"));
  EXPECT_THAT(std::string(LoadConfig().status().message()),
              HasSubstr("unix:/run/mmud.sock"));
  absl::SetFlag(&FLAGS_listen, std::string("0.0.0.0:5555"));
  EXPECT_THAT(std::string(LoadConfig().status().message()),
              HasSubstr("--listen_tcp"));
}

TEST(Config, TraceDirectoryIsOneThatCanBeRead) {
  absl::FlagSaver saver;
  absl::SetFlag(&FLAGS_listen, std::string("unix:/s"));
  absl::SetFlag(&FLAGS_trace_dir, ::testing::TempDir());
  EXPECT_TRUE(LoadConfig().ok());
  absl::SetFlag(&FLAGS_trace_dir, std::string("/nope"));
  EXPECT_EQ(LoadConfig().status().message(),
            "trace_dir is \"/nope\"; it must be a directory that can be read: "
            "No such file or directory");
  absl::SetFlag(&FLAGS_trace_dir, WriteFile("no directory"));
  EXPECT_THAT(std::string(LoadConfig().status().message()),
              HasSubstr("can be read: Not a directory"));
}

TEST(Config, GuestMemoryIsLimitedToTheHostsUnlessSaid) {
  absl::FlagSaver saver;
  absl::SetFlag(&FLAGS_listen, std::string("unix:/s"));
  EXPECT_EQ(LoadConfig()->max_guest_memory_bytes, PhysicalMemoryBytes());
  EXPECT_GT(PhysicalMemoryBytes(), int64_t{64} << 20);
  absl::SetFlag(&FLAGS_max_guest_memory_bytes, int64_t{0});
  EXPECT_EQ(LoadConfig()->max_guest_memory_bytes, 0) << "no limit";
}

TEST(Config, AFlagShowsItsDefault) {
  const auto shown = [](const char* name) {
    return absl::FindCommandLineFlag(name)->DefaultValue();
  };
  EXPECT_EQ(shown("max_vms"), "64");
  EXPECT_EQ(shown("drain_timeout"), "10s");
  EXPECT_EQ(shown("log_format"), "text");
  EXPECT_EQ(shown("listen"), "\"\"");
  for (const ConfigOption& option : ConfigOptions()) {
    EXPECT_NE(shown(option.name), "") << option.name;
  }
}

TEST(Config, EveryOptionHasAFlag) {
  for (const ConfigOption& option : ConfigOptions()) {
    EXPECT_NE(absl::FindCommandLineFlag(option.name), nullptr) << option.name;
  }
}

TEST(ConfigOptions, AreShownAsTheyWouldBeGiven) {
  Config config;
  config.listen = "unix:/run/mmud.sock";
  config.max_vms = 7;
  config.drain_timeout = absl::Seconds(90);
  config.enable_debug_service = true;
  std::map<std::string, std::string> shown;
  for (const ConfigOption& option : ConfigOptions()) {
    shown[option.name] = ShowOption(option, config);
  }
  EXPECT_EQ(shown.size(), ConfigOptions().size());
  EXPECT_EQ(shown["listen"], "unix:/run/mmud.sock");
  EXPECT_EQ(shown["max_vms"], "7");
  EXPECT_EQ(shown["drain_timeout"], "1m30s");
  EXPECT_EQ(shown["enable_debug_service"], "true");
  EXPECT_EQ(shown["allow_remote_plaintext"], "false");
}

}  // namespace
}  // namespace mmud
