#include "mmu_core/testing/flush_trace.h"

#include <utility>
#include <vector>

#include "mmu_core/base/check.h"
#include "mmu_core/stats/labels.h"
#include "mmu_core/tlb/tlb_flush_batch.h"

namespace mmu {
namespace testing {
namespace {

constinit FlushTrace* current = nullptr;

}  // namespace

FlushTrace::FlushTrace(std::function<void(const TlbFlush&)> at_flush)
    : at_flush_(std::move(at_flush)) {
  MMU_CHECK(current == nullptr);
  current = this;
}

FlushTrace::~FlushTrace() { current = nullptr; }

std::vector<GfnRange> FlushTrace::gfns() const {
  std::vector<GfnRange> ranges;
  ranges.reserve(flushes_.size());
  for (const TlbFlush& flush : flushes_) ranges.push_back(flush.gfns);
  return ranges;
}

void FlushTrace::Note(const TlbFlush& flush) {
  if (current == nullptr) return;
  current->flushes_.push_back(flush);
  if (current->at_flush_) current->at_flush_(flush);
}

}  // namespace testing

void AlterFlush(FlushReason, TlbFlush& flush) {
  testing::FlushTrace::Note(flush);
}

}  // namespace mmu
