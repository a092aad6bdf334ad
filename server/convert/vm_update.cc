#include "server/convert/vm_update.h"

#include <cstdint>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/field_mask.pb.h"
#include "mmu_core/base/reason.h"
#include "server/base/errors.h"
#include "server/base/labels.h"
#include "server/convert/mmu_convert.h"

namespace mmud {
namespace {

absl::Status BadMask(absl::string_view what) {
  return InvalidField(
      mmu::Reason::kInvalidUpdateMask, "update_mask",
      absl::StrCat("update_mask ", what,
                   "; it must name fields to change, of labels, "
                   "shadow_page_limit and stage2.eager_split_chunk_bytes"));
}

}  // namespace

absl::StatusOr<VmUpdate> ToUpdate(const v1::UpdateVmRequest& request) {
  const auto& paths = request.update_mask().paths();
  if (paths.empty()) return BadMask("is empty");
  VmUpdate update;
  for (const std::string& path : paths) {
    if (path == "labels") {
      Labels labels(request.vm().labels().begin(), request.vm().labels().end());
      if (absl::Status status = CheckLabels(labels, "vm.labels");
          !status.ok()) {
        return status;
      }
      update.labels = std::move(labels);
    } else if (path == "shadow_page_limit") {
      const absl::StatusOr<uint64_t> limit =
          ToShadowPageLimit(request.vm().shadow_page_limit(),
                            "vm.shadow_page_limit", mmu::Reason::kInvalidRange);
      if (!limit.ok()) return limit.status();
      update.shadow_page_limit = *limit;
    } else if (path == "stage2.eager_split_chunk_bytes") {
      const absl::StatusOr<uint64_t> bytes =
          ToEagerSplitChunk(request.vm().stage2().eager_split_chunk_bytes(),
                            "vm.stage2.eager_split_chunk_bytes");
      if (!bytes.ok()) return bytes.status();
      update.eager_split_chunk_bytes = *bytes;
    } else {
      return BadMask(absl::StrCat("has ", Quote(path)));
    }
  }
  if (update.shadow_page_limit.has_value() &&
      update.eager_split_chunk_bytes.has_value()) {
    return BadMask(
        "has shadow_page_limit and stage2.eager_split_chunk_bytes, "
        "of which a VM has one at most");
  }
  return update;
}

}  // namespace mmud
