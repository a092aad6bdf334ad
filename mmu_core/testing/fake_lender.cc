#include "mmu_core/testing/fake_lender.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "absl/status/status.h"
#include "mmu_core/base/address.h"
#include "mmu_core/base/check.h"

namespace mmu::testing {
namespace {

template <typename Word>
size_t CopyWord(std::byte* from, std::byte* to) {
  const Word word = std::atomic_ref<Word>(*reinterpret_cast<Word*>(from))
                        .load(std::memory_order_acquire);
  std::memcpy(to, &word, sizeof(word));
  return sizeof(word);
}

}  // namespace

FakeLender::FakeLender(uint64_t pages) : states_(pages, FrameState::kMissing) {
  const uint64_t size = pages << kPageShift;
  const uint64_t alignment = BytesPer(Level::k2M);
  void* raw = mmap(nullptr, size + alignment, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  MMU_CHECK(raw != MAP_FAILED);
  auto* const begin = static_cast<std::byte*>(raw);
  const uint64_t head = -reinterpret_cast<uintptr_t>(raw) % alignment;
  if (head > 0) munmap(begin, head);
  munmap(begin + head + size, alignment - head);
  memory_ = begin + head;
}

FakeLender::~FakeLender() { munmap(memory_, size_bytes()); }

uint64_t FakeLender::size_bytes() const {
  MutexLock lock(mu_);
  return states_.size() << kPageShift;
}

void FakeLender::SetLocked(uint64_t page, FrameState state) {
  states_[page] = state;
  if (state != FrameState::kMissing) return;
  std::memset(memory_ + (page << kPageShift), 0, kPageSize);
}

void FakeLender::Set(uint64_t first, uint64_t end, FrameState state) {
  MutexLock lock(mu_);
  for (uint64_t page = first; page < end; ++page) SetLocked(page, state);
}

void FakeLender::SwapOut(uint64_t page) {
  MutexLock lock(mu_);
  states_[page] = FrameState::kMissing;
}

void FakeLender::GiveOnDemand(FrameState state) {
  MutexLock lock(mu_);
  on_demand_ = state;
}

void FakeLender::Answer(FrameAnswer answer) {
  MutexLock lock(mu_);
  answer_ = answer;
}

void FakeLender::Fail(const std::string& why) {
  MutexLock lock(mu_);
  failure_ = why;
}

void FakeLender::OnAsk(std::function<void()> fn) {
  MutexLock lock(mu_);
  on_ask_ = std::move(fn);
}

void FakeLender::OnAnswer(std::function<void()> fn) {
  MutexLock lock(mu_);
  on_answer_ = std::move(fn);
}

std::vector<FakeLender::Asked> FakeLender::asked() const {
  MutexLock lock(mu_);
  return asked_;
}

FrameState FakeLender::StateOf(uint64_t page) const {
  MutexLock lock(mu_);
  return states_[page];
}

Level FakeLender::UniformLevel(uint64_t page, Level max) const {
  MutexLock lock(mu_);
  const uint64_t host_frame =
      reinterpret_cast<uintptr_t>(memory_) >> kPageShift;
  for (Level level = max; level > Level::k4K; level = ChildOf(level)) {
    const uint64_t within = (host_frame + page) % PagesPer(level);
    const uint64_t first = page - within;
    if (within > page || first + PagesPer(level) > states_.size()) continue;
    const auto begin = states_.begin() + static_cast<ptrdiff_t>(first);
    const auto end = begin + static_cast<ptrdiff_t>(PagesPer(level));
    if (*begin != FrameState::kMissing &&
        std::all_of(begin, end, [&](FrameState s) { return s == *begin; })) {
      return level;
    }
  }
  return Level::k4K;
}

size_t FakeLender::Read(uint64_t offset, absl::Span<std::byte> out) const {
  MutexLock lock(mu_);
  size_t done = 0;
  while (done < out.size() &&
         states_[(offset + done) >> kPageShift] != FrameState::kMissing) {
    const bool whole =
        (offset + done) % sizeof(uint64_t) == 0 && out.size() - done >= 8;
    done += whole ? CopyWord<uint64_t>(memory_ + offset + done, &out[done])
                  : CopyWord<uint32_t>(memory_ + offset + done, &out[done]);
  }
  return done;
}

absl::StatusOr<FrameAnswer> FakeLender::MakePresent(uint64_t page,
                                                    AccessKind kind) {
  std::function<void()> on_ask;
  {
    MutexLock lock(mu_);
    asked_.push_back({page, kind});
    on_ask = on_ask_;
  }
  if (on_ask) on_ask();
  FrameAnswer answer;
  std::function<void()> on_answer;
  {
    MutexLock lock(mu_);
    if (!failure_.empty()) return absl::UnavailableError(failure_);
    if (answer_ == FrameAnswer::kReady && states_[page] < on_demand_) {
      SetLocked(page, on_demand_);
    }
    answer = answer_;
    on_answer = on_answer_;
  }
  if (on_answer) on_answer();
  return answer;
}

}  // namespace mmu::testing
