// Runs a target over its corpus and over inputs made from it, the same in each
// run. With --write-seeds=DIR it writes the target's seeds into DIR instead.
//
//   NAME_test [--mutations=N] [--write-seeds=DIR] FILE_OR_DIR...
//
// If an input ends the program, the input is in the file `crash` in
// TEST_UNDECLARED_OUTPUTS_DIR, or in the current folder; NAME_test crash runs
// it again.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "tests/fuzz/mutation.h"
#include "tests/fuzz/target.h"

namespace mmud::fuzz {
namespace {

constexpr uint64_t kSeed = 20261204;
constexpr std::string_view kWriteSeeds = "--write-seeds=";
constexpr std::string_view kMutations = "--mutations=";

// The input that runs, for the signal handler.
std::string* running = nullptr;
char crash_path[4096];

void SaveInput(int signal) {
  const int fd = open(crash_path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
  if (fd >= 0) {
    if (write(fd, running->data(), running->size()) >= 0) {
      constexpr std::string_view kSaid = "the input is saved in ";
      (void)!write(STDERR_FILENO, kSaid.data(), kSaid.size());
      (void)!write(STDERR_FILENO, crash_path, std::strlen(crash_path));
      (void)!write(STDERR_FILENO, "\n", 1);
    }
    close(fd);
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void SaveInputOfCrash() {
  const char* folder = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  const std::string path =
      folder == nullptr ? "crash" : std::string(folder) + "/crash";
  if (path.size() >= sizeof(crash_path)) return;
  std::copy(path.begin(), path.end(), crash_path);
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL}) {
    std::signal(signal, SaveInput);
  }
}

std::string ReadFile(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file),
          std::istreambuf_iterator<char>()};
}

int WriteSeeds(const Target& target, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  for (const Seed& seed : target.seeds()) {
    std::ofstream file(folder / seed.name, std::ios::binary);
    file << seed.bytes;
    if (!file.flush()) {
      std::cerr << "cannot write " << folder / seed.name << "\n";
      return 1;
    }
  }
  return 0;
}

int Replay(const Target& target, std::vector<std::filesystem::path> paths,
           uint64_t mutations) {
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  corpus.reserve(paths.size());
  for (const auto& path : paths) corpus.push_back(ReadFile(path));
  if (corpus.empty()) {
    std::cerr << "no input; name files, or folders with files\n";
    return 2;
  }
  // It would write a line for each text that is not UTF-8.
  google::protobuf::SetLogHandler(nullptr);
  static std::string input;
  running = &input;
  SaveInputOfCrash();
  for (const std::string& entry : corpus) {
    input = entry;
    target.run(input);
  }
  Random random(kSeed);
  for (uint64_t i = 0; i < mutations; ++i) {
    // A chain of changes: most begin anew, some go on from the last input.
    if (Below(random, 4) != 0) input = corpus[Below(random, corpus.size())];
    input = target.mutate(std::move(input), random);
    target.run(input);
  }
  std::cout << corpus.size() << " inputs and " << mutations
            << " changed ones ran\n";
  return 0;
}

int Main(const std::vector<std::string_view>& arguments) {
  uint64_t mutations = 0;
  std::vector<std::filesystem::path> paths;
  for (std::string_view argument : arguments) {
    if (argument.starts_with(kWriteSeeds)) {
      argument.remove_prefix(kWriteSeeds.size());
      return WriteSeeds(ThisTarget(), argument);
    }
    if (argument.starts_with(kMutations)) {
      argument.remove_prefix(kMutations.size());
      const char* end = argument.data() + argument.size();
      const auto read = std::from_chars(argument.data(), end, mutations);
      if (read.ec == std::errc() && read.ptr == end) continue;
      std::cerr << "--mutations is '" << argument << "'; it must be a number\n";
      return 2;
    }
    if (!std::filesystem::is_directory(argument)) {
      paths.emplace_back(argument);
      continue;
    }
    for (const auto& file : std::filesystem::directory_iterator(argument)) {
      paths.push_back(file.path());
    }
  }
  return Replay(ThisTarget(), std::move(paths), mutations);
}

}  // namespace
}  // namespace mmud::fuzz

int main(int argc, char** argv) {
  return mmud::fuzz::Main({argv + 1, argv + argc});
}
