#include "server/convert/harvest_convert.h"

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "mmu_core/base/reason.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "server/base/errors.h"
#include "server/convert/dirty_log_convert.h"

namespace mmud {
namespace {

constexpr int64_t kDefaultWindow = 8;
constexpr int64_t kMaxWindow = 64;

// Errors: INVALID_RANGE.
absl::StatusOr<size_t> ToWindow(int64_t chunk_count) {
  if (chunk_count < 0 || chunk_count > kMaxWindow) {
    return WrongValue(mmu::Reason::kInvalidRange, "open.window_chunk_count",
                      chunk_count,
                      absl::StrCat("from 1 to ", kMaxWindow,
                                   ", or 0, which is ", kDefaultWindow));
  }
  return static_cast<size_t>(chunk_count == 0 ? kDefaultWindow : chunk_count);
}

}  // namespace

absl::StatusOr<HarvestCall> ToHarvestCall(const v1::HarvestOpen& open) {
  HarvestCall harvest;
  const absl::StatusOr<mmu::LogCall> call = ToLogCall(open);
  if (!call.ok()) return InField(call.status(), "open.");
  harvest.call = *call;
  const absl::StatusOr<ChunkForm> form =
      ToChunkForm(open.encoding(), open.max_message_bytes());
  if (!form.ok()) return InField(form.status(), "open.");
  harvest.form = *form;
  const absl::StatusOr<size_t> window = ToWindow(open.window_chunk_count());
  if (!window.ok()) return window.status();
  harvest.window = *window;
  absl::StatusOr<std::vector<uint32_t>> slots = ToSlotIds(open.slots());
  if (!slots.ok()) return InField(slots.status(), "open.");
  harvest.slots = *std::move(slots);
  return harvest;
}

}  // namespace mmud
