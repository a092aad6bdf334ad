#include "mmu_core/testing/failing_allocations.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <new>
#include <thread>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace mmu::testing {
namespace {

bool TakesMemory(uint64_t nth, absl::FunctionRef<bool()> allocate) {
  bool enough = false;
  const Attempt attempt = FailOneAllocation(nth, [&] {
    try {
      enough = allocate();
    } catch (const std::bad_alloc&) {
      enough = false;
    }
    return absl::OkStatus();
  });
  EXPECT_EQ(attempt.failed, !enough);
  return enough;
}

// A compiler may omit a new-expression whose object is not used. So the tests
// either use the object, or call operator new itself.
void Escape(const void* memory) { asm volatile("" : : "g"(memory) : "memory"); }

bool New() {
  ::operator delete(::operator new(sizeof(int)));
  return true;
}

bool NewAligned() {
  constexpr std::align_val_t kLine{64};
  ::operator delete(::operator new(64, kLine), kLine);
  return true;
}

bool NewOrNull() {
  void* const memory = ::operator new(sizeof(int), std::nothrow);
  ::operator delete(memory);
  return memory != nullptr;
}

bool Map() {
  void* const memory =
      mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    EXPECT_EQ(errno, ENOMEM);
    return false;
  }
  munmap(memory, 4096);
  return true;
}

bool NewVector() {
  const std::vector<int> memory(7);
  Escape(memory.data());
  return true;
}

bool MakeFile() {
  const int fd = memfd_create("test", 0);
  if (fd < 0) return false;
  close(fd);
  return true;
}

TEST(FailingAllocationsTest, EveryWayToGetMemoryFails) {
  for (const uint64_t nth : {1, 2}) {
    const bool enough = nth == 2;
    EXPECT_EQ(TakesMemory(nth, New), enough);
    EXPECT_EQ(TakesMemory(nth, NewAligned), enough);
    EXPECT_EQ(TakesMemory(nth, NewOrNull), enough);
    EXPECT_EQ(TakesMemory(nth, NewVector), enough);
    EXPECT_EQ(TakesMemory(nth, Map), enough);
    EXPECT_EQ(TakesMemory(nth, MakeFile), enough);
  }
}

TEST(FailingAllocationsTest, OneFailsAndThoseOfOtherThreadsDoNot) {
  int made = 0;
  const Attempt attempt = FailOneAllocation(2, [&] {
    for (int i = 0; i < 4; ++i) {
      made += NewOrNull();
    }
    return absl::OkStatus();
  });
  EXPECT_TRUE(attempt.failed);
  EXPECT_EQ(made, 3);
  EXPECT_TRUE(Map());

  std::thread other([] { EXPECT_TRUE(Map()); });
  EXPECT_FALSE(FailOneAllocation(1, [&] {
                 other.join();
                 return absl::OkStatus();
               }).failed);
}

TEST(FailingAllocationsTest, AllocationsAreCounted) {
  const AllocationCount before = AllocationsOfThread();
  {
    const std::vector<char> memory(1000);
    Escape(memory.data());
  }
  EXPECT_TRUE(Map());
  const AllocationCount after = AllocationsOfThread();
  EXPECT_EQ(after.calls - before.calls, 2u);
  EXPECT_EQ(after.bytes - before.bytes, 5096u);
}

}  // namespace
}  // namespace mmu::testing
