#include "tests/stress/stressed_guest.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "mmu_core/base/access.h"
#include "mmu_core/vm/vm_state.h"

namespace mmu::stress {
namespace {

// Accesses between two looks whether to pause or stop.
constexpr int kBatch = 64;

}  // namespace

StressedGuest::StressedGuest(Vm& vm, const GuestSpaces& spaces, uint64_t seed)
    : vm_(vm),
      spaces_(spaces),
      vcpus_(static_cast<int>(vm.state().vcpus.size())) {
  for (int i = 0; i < vcpus_; ++i) {
    threads_.emplace_back([this, i, seed] { Run(i, seed * 64 + i); });
  }
}

StressedGuest::~StressedGuest() {
  stop_.store(true);
  Resume();
  for (std::thread& thread : threads_) thread.join();
}

void StressedGuest::Pause() {
  pause_.store(true);
  std::unique_lock<std::mutex> lock(mu_);
  changed_.wait(lock, [this] { return parked_ + ended_ == vcpus_; });
}

void StressedGuest::Resume() {
  {
    const std::lock_guard<std::mutex> lock(mu_);
    pause_.store(false);
  }
  changed_.notify_all();
}

std::string StressedGuest::violation() const {
  const std::lock_guard<std::mutex> lock(mu_);
  return violation_;
}

void StressedGuest::Report(const std::string& text) {
  const std::lock_guard<std::mutex> lock(mu_);
  if (violation_.empty()) violation_ = text;
}

void StressedGuest::WaitWhilePaused() {
  std::unique_lock<std::mutex> lock(mu_);
  ++parked_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return !pause_.load() || stop_.load(); });
  --parked_;
}

void StressedGuest::Run(int index, uint64_t seed) {
  std::mt19937_64 random(seed);
  Vcpu& vcpu = *vm_.state().vcpus[index];
  Expectations expect;
  expect.own.resize(spaces_.stable.pages());
  expect.neighbour.resize(spaces_.stable.pages());
  bool well = true;
  while (well && !stop_.load(std::memory_order_relaxed)) {
    if (pause_.load()) WaitWhilePaused();
    vcpu.EnterGuest();
    for (int i = 0; i < kBatch && well; ++i) {
      well = Step(index, random, expect);
    }
    vcpu.ExitGuest();
    accesses_.fetch_add(kBatch, std::memory_order_relaxed);
    // What hardware and a hypervisor do now and then without being asked.
    if (random() % 256 == 0) vcpu.tlb().FlushAll();
    if (random() % 1024 == 0) vcpu.ReleaseRoot();
  }
  const std::lock_guard<std::mutex> lock(mu_);
  ++ended_;
  changed_.notify_all();
}

bool StressedGuest::Step(int index, std::mt19937_64& random,
                         Expectations& expect) {
  Vcpu& vcpu = *vm_.state().vcpus[index];
  const uint64_t dice = random();
  if (dice % 8 == 0 && !spaces_.changing.empty()) {
    const Gfn gfn =
        spaces_.changing.start + random() % spaces_.changing.pages();
    uint64_t word = dice;
    const auto kind = static_cast<AccessKind>(dice / 8 % 3);
    if (vcpu.Access(ToGpa(gfn), kind, &word) != AccessOutcome::kError) {
      return true;
    }
    Report(absl::StrFormat("vCPU %d, gfn %#x of the changing range: %s", index,
                           gfn.value(), vcpu.status().ToString()));
    return false;
  }
  // Half of the accesses go to a sixteenth of the pages.
  uint64_t page = random() % spaces_.stable.pages();
  if (dice / 32 % 2 == 0) page /= 16;
  const Gpa base = ToGpa(spaces_.stable.start + page);
  const int neighbour = (index + 1) % vcpus_;
  const auto access = [&](int word_of, AccessKind kind, uint64_t* word) {
    if (vcpu.Access(base + static_cast<uint64_t>(word_of) * 8, kind, word) ==
        AccessOutcome::kDone) {
      return true;
    }
    Report(absl::StrFormat("vCPU %d, page %d of the stable range: not done: %s",
                           index, page, vcpu.status().ToString()));
    return false;
  };
  uint64_t word = 0;
  switch (dice / 64 % 4) {
    case 0:
    case 1:
      word = expect.own[page] + 1;
      if (!access(index, AccessKind::kWrite, &word)) return false;
      ++expect.own[page];
      return true;
    case 2:
      if (!access(index,
                  dice / 256 % 8 == 0 ? AccessKind::kExec : AccessKind::kRead,
                  &word)) {
        return false;
      }
      return CheckWord(index, page, word, expect.own[page], expect.own[page],
                       "its own");
    default:
      if (vcpus_ == 1) return true;
      if (!access(neighbour, AccessKind::kRead, &word)) return false;
      if (!CheckWord(index, page, word, expect.neighbour[page], UINT64_MAX,
                     "its neighbour's")) {
        return false;
      }
      expect.neighbour[page] = word;
      return true;
  }
}

bool StressedGuest::CheckWord(int index, uint64_t page, uint64_t seen,
                              uint64_t at_least, uint64_t at_most,
                              const char* whose) {
  if (at_least <= seen && seen <= at_most) return true;
  Report(absl::StrFormat(
      "vCPU %d reads %d in %s word of page %d of the stable range, after %d",
      index, seen, whose, page, at_least));
  return false;
}

}  // namespace mmu::stress
