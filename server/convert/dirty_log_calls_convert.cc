#include "server/convert/dirty_log_calls_convert.h"

#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "mmu_core/dirty/dirty_log_calls.h"
#include "mmu_core/dirty/dirty_log_state.h"
#include "server/base/errors.h"
#include "server/convert/convert.h"

namespace mmud {
namespace {

int64_t Signed(uint64_t count) { return static_cast<int64_t>(count); }

}  // namespace

absl::Status InPagesFields(absl::Status status) {
  return InFields(std::move(status), {{"slot", "pages.slot"},
                                      {"first_page", "pages.start_gpa_bytes"},
                                      {"page_count", "pages.size_bytes"},
                                      {"mask", "pages"}});
}

v1::SealDirtyLogResponse ToResponse(const SealedLog& sealed) {
  const mmu::SealOutcome& outcome = sealed.outcome;
  v1::SealDirtyLogResponse response;
  response.set_log_id(outcome.log_id.ToString());
  response.set_epoch(Signed(outcome.epoch));
  for (const mmu::SlotSeal& slot : outcome.slots) {
    v1::SealedSlot* proto = response.add_slots();
    proto->set_slot(static_cast<int32_t>(slot.slot));
    proto->set_fresh_page_count(Signed(slot.fresh_page_count));
    proto->set_merged_page_count(Signed(slot.merged_page_count));
  }
  response.set_acknowledged_page_count(Signed(outcome.acknowledged_page_count));
  *response.mutable_cost() = ToProto(sealed.cost);
  return response;
}

v1::ClearDirtyLogResponse ToResponse(const ClearedPages& cleared) {
  const mmu::ClearResult& result = cleared.result;
  v1::ClearDirtyLogResponse response;
  response.set_cleared_page_count(Signed(result.cleared_page_count));
  response.set_already_in_flight_page_count(
      Signed(result.already_in_flight_page_count));
  response.set_already_clean_page_count(
      Signed(result.already_clean_page_count));
  response.set_still_sealed_page_count(Signed(result.still_sealed_page_count));
  response.set_also_protected_page_count(
      Signed(result.also_protected_page_count));
  response.mutable_splits()->set_split_2m_count(Signed(result.split_2m_count));
  response.mutable_splits()->set_split_1g_count(Signed(result.split_1g_count));
  *response.mutable_cost() = ToProto(cleared.cost);
  return response;
}

v1::AcknowledgePagesResponse ToResponse(const mmu::AcknowledgeResult& result) {
  v1::AcknowledgePagesResponse response;
  response.set_acknowledged_page_count(Signed(result.acknowledged_page_count));
  response.set_later_page_count(Signed(result.later_page_count));
  response.set_not_in_flight_page_count(
      Signed(result.not_in_flight_page_count));
  response.set_still_in_flight_page_count(
      Signed(result.still_in_flight_page_count));
  return response;
}

}  // namespace mmud
