#include "client/mmuctl/aging_views.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "client/mmu_client/page_bitmap.h"
#include "client/mmu_client/time_conversion.h"
#include "client/mmuctl/views.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "client/working_set/age_text.h"
#include "client/working_set/from_api.h"
#include "google/protobuf/repeated_field.h"
#include "mmud/v1/aging_service.pb.h"

namespace mmud::client {

std::string ViewMmus(
    const google::protobuf::RepeatedPtrField<v1::AgedMmu>& mmus) {
  std::string view;
  for (const v1::AgedMmu& mmu : mmus) {
    absl::StrAppend(
        &view, view.empty() ? "" : "; ",
        ShortName(v1::PageTableKind_Name(mmu.kind()), "PAGE_TABLE_KIND_"), " ",
        ShortName(v1::AgingCoverage_Name(mmu.coverage()), "AGING_COVERAGE_"));
    if (mmu.coverage() == v1::AGING_COVERAGE_SKIPPED) {
      absl::StrAppend(&view, " (add --may-lock)");
    } else if (mmu.lock() != v1::AGING_LOCK_UNSPECIFIED) {
      absl::StrAppend(&view, " (lock: ",
                      ShortName(v1::AgingLock_Name(mmu.lock()), "AGING_LOCK_"),
                      ")");
    }
  }
  return view;
}

std::string ViewGeneration(const v1::GenerationMetadata& metadata) {
  const v1::Generation& generation = metadata.generation();
  KeyValues values;
  values.Add("VM", metadata.vm());
  values.Add("generation", absl::StrCat(generation.sequence()));
  if (generation.has_start_time()) {
    values.Add("began", FormatWallTime(FromProto(generation.start_time())));
  }
  values.Add("took",
             absl::StrCat(FormatTime(FromProto(metadata.running_time())), ", ",
                          FormatTime(FromProto(metadata.cpu_time())),
                          " of it on a processor"));
  values.Add(
      "young",
      absl::StrCat(FormatBytes(generation.young_page_count() * kPageBytes),
                   ", ", FormatCount(generation.young_page_count()), " of ",
                   FormatCount(generation.examined_page_count()),
                   " examined pages (",
                   FormatShareOf(generation.young_page_count(),
                                 generation.examined_page_count()),
                   ")"));
  values.Add("MMUs", ViewMmus(generation.mmus()));
  for (const std::string& sentence : CoverageOf(generation)) {
    values.Add("coverage", sentence);
  }
  values.Add("cost", ViewCost(metadata.cost()));
  return values.ToString();
}

std::string ViewAger(const v1::Ager& ager) {
  const v1::AgerSettings& settings = ager.settings();
  KeyValues values;
  values.Add("VM", ager.vm());
  values.Add("ager", settings.enabled() ? "on" : "off");
  values.Add("budget",
             absl::StrCat(settings.cpu_percent(), "% of a processor"));
  values.Add(
      "interval",
      absl::StrCat(
          FormatAge(FromProto(settings.min_interval())), " to ",
          FormatAge(FromProto(settings.max_interval())),
          ager.has_interval()
              ? absl::StrCat(", now ", FormatAge(FromProto(ager.interval())))
              : ""));
  values.Add("examines",
             absl::StrCat(settings.lock_mode() == v1::AGING_LOCK_MODE_MAY_LOCK
                              ? "all MMUs"
                              : "MMUs that age fast",
                          ", ",
                          settings.scope() == v1::GENERATION_SCOPE_LOOK_AROUND
                              ? "one page of each 64 and the neighbours of "
                                "young ones"
                              : "every page"));
  if (ager.has_changed_ratio()) {
    values.Add("changed",
               absl::StrCat(FormatShare(ager.changed_ratio(), 1),
                            " of the young pages between the last two "
                            "generations"));
  }
  values.Add("generations",
             absl::StrCat(FormatCount(ager.generation_count()), " made, ",
                          FormatCount(ager.failed_count()), " failed"));
  values.Add("CPU time", FormatTime(FromProto(ager.cpu_time())));
  if (!ager.last_error().empty()) {
    values.Add("last error", ager.last_error());
  }
  return values.ToString();
}

}  // namespace mmud::client
