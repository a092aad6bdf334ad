#include "client/top/view.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "client/text/printable.h"
#include "client/text/table.h"
#include "client/text/units.h"
#include "client/top/columns.h"
#include "client/top/marks.h"
#include "client/top/model.h"
#include "client/top/sample.h"
#include "client/top/times.h"

namespace mmud::client {
namespace {

// Of the names of values about one VM.
constexpr int kNameWidth = 16;

bool BeginsCharacter(char byte) { return (byte & '\xc0') != '\x80'; }

// The first `width` columns of `text`.
std::string Cut(const std::string& text, int width) {
  int used = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    if (BeginsCharacter(text[at]) && ++used > width) return text.substr(0, at);
  }
  return text;
}

// `text` in exactly `width` columns.
std::string Fit(const std::string& text, int width, Align align) {
  std::string fit = Cut(text, width);
  const std::string blanks(static_cast<size_t>(width - WidthOf(fit)), ' ');
  return align == Align::kLeft ? fit + blanks : blanks + fit;
}

// `line` without what does not fit into `width`.
Line CutLine(const Line& line, int width) {
  Line cut;
  for (const Span& span : line) {
    if (width <= 0) break;
    cut.push_back({Cut(span.text, width), span.style});
    width -= WidthOf(cut.back().text);
  }
  return cut;
}

Line Head(const TopModel& model, const ViewOptions& options) {
  std::string text = absl::StrCat("mmuctl top  ", options.address);
  if (model.newest()) {
    const TopSample& sample = *model.newest();
    absl::StrAppend(&text, "  mmud ", Printable(sample.daemon.version),
                    ", up for ", FormatTime(sample.daemon.uptime));
    if (model.restart_count() > 0) {
      absl::StrAppend(&text, ", restarted ", model.restart_count(), "x");
    }
    absl::StrAppend(&text, "  ", TimeOfDay(sample.wall_time), " UTC");
  }
  return {{text, Style::kTitle}};
}

Line Summary(const TopModel& model, const ViewOptions& options) {
  if (!model.failure().ok()) {
    return {{absl::StrCat("NO ANSWER for ", FormatTime(model.failing_for()),
                          model.newest() ? " (old values below)" : "", ": ",
                          Printable(model.failure().message())),
             Style::kWarning}};
  }
  if (!model.newest()) return {{"waiting for the daemon", Style::kDim}};
  int vcpus = 0;
  int64_t memory = 0;
  for (const VmTrend& vm : model.vms()) {
    vcpus += vm.sample.vcpu_count;
    memory += vm.sample.memory_size_bytes;
  }
  return {
      {absl::StrCat(
           model.vms().size(), " VMs, ", vcpus, " vCPUs, ", FormatBytes(memory),
           "  each ", FormatTime(options.interval), ": ",
           model.newest()->call_count, " calls, ",
           FormatTime(model.newest()->call_time), "  by ", NameOf(options.sort),
           options.order == SortOrder::kReversed ? " reversed" : ""),
       Style::kPlain}};
}

Line ColumnTitles(const std::vector<PlacedColumn>& columns,
                  const ViewOptions& options) {
  Line line;
  for (const PlacedColumn& column : columns) {
    if (!line.empty()) line.push_back({" ", Style::kTitle});
    const bool sorts = column.sorts && column.key == options.sort;
    line.push_back({Fit(column.title, column.width, column.align),
                    sorts ? Style::kSelected : Style::kTitle});
  }
  return line;
}

Line Row(const VmTrend& vm, const std::vector<PlacedColumn>& columns,
         const ViewOptions& options) {
  const Style style = vm.sample.uid == options.selected ? Style::kSelected
                      : vm.sample.conditions.empty()    ? Style::kPlain
                                                        : Style::kWarning;
  std::string text;
  for (const PlacedColumn& column : columns) {
    if (!text.empty()) text += ' ';
    text += Fit(column.cell(vm, column.width, options.charset), column.width,
                column.align);
  }
  return {{text, style}};
}

// "alpha split [####----] 41%, 12.3 s left".
Line WorkLine(const std::string& vm, const WorkSample& work, int width) {
  const int bar_width = std::clamp(width / 8, 8, 32);
  std::string text = absl::StrCat(
      Fit(vm, 12, Align::kLeft), " ", Fit(work.kind, 10, Align::kLeft), " ",
      work.share ? Bar(*work.share, bar_width)
                 : std::string(static_cast<size_t>(bar_width), ' '),
      " ", Fit(work.share ? CompactShare(*work.share) : "", 4, Align::kRight));
  if (work.state != "running") absl::StrAppend(&text, " ", work.state);
  if (work.remaining_time) {
    absl::StrAppend(&text, " ", FormatTime(*work.remaining_time), " left");
  }
  absl::StrAppend(&text, ", hold ", FormatTime(work.max_lock_hold), ", wait ",
                  FormatTime(work.lock_wait));
  return {{text}};
}

Line ConditionLine(const std::string& vm, const ConditionSample& condition) {
  return {{absl::StrCat(Fit(vm, 12, Align::kLeft), " ", condition.type,
                        " since ", TimeOfDay(condition.since),
                        " UTC: ", Printable(condition.message)),
           Style::kWarning}};
}

// The running operations, then the conditions, each under a title; in the order
// of `vms`.
std::vector<Line> Notes(const std::vector<const VmTrend*>& vms, int width) {
  std::vector<Line> work;
  std::vector<Line> conditions;
  for (const VmTrend* vm : vms) {
    for (const WorkSample& one : vm->sample.work) {
      work.push_back(WorkLine(vm->sample.id, one, width));
    }
    for (const ConditionSample& one : vm->sample.conditions) {
      conditions.push_back(ConditionLine(vm->sample.id, one));
    }
  }
  std::vector<Line> lines;
  const auto add = [&lines](const char* title, const std::vector<Line>& some) {
    if (some.empty()) return;
    lines.push_back({});
    lines.push_back({{title, Style::kTitle}});
    lines.insert(lines.end(), some.begin(), some.end());
  };
  add("OPERATIONS", work);
  add("CONDITIONS", conditions);
  return lines;
}

// `lines` in at most `most` lines; the last one then says how many are missing.
void Shorten(int most, std::vector<Line>* lines) {
  const int count = static_cast<int>(lines->size());
  if (count <= most) return;
  lines->resize(static_cast<size_t>(std::max(most, 0)));
  if (most > 0) {
    lines->back() = {
        {absl::StrCat("... ", count - most + 1, " more"), Style::kDim}};
  }
}

// Gives the screen its exact size, with the help in its last line.
std::vector<Line> Framed(std::vector<Line> lines, const ViewOptions& options) {
  if (options.height > 0) {
    const int body = options.height - (options.help.empty() ? 0 : 1);
    Shorten(body, &lines);
    lines.resize(static_cast<size_t>(std::max(body, 0)));
  }
  if (!options.help.empty()) lines.push_back({{options.help, Style::kDim}});
  for (Line& line : lines) line = CutLine(line, options.width);
  return lines;
}

void AddValue(const std::string& name, const std::string& value,
              std::vector<Line>* lines) {
  lines->push_back(
      {{Fit(name, kNameWidth, Align::kLeft), Style::kDim}, {value}});
}

void AddTrend(const std::string& name, const std::string& value,
              const History& history, const ViewOptions& options,
              std::vector<Line>* lines) {
  const int width = std::clamp(options.width - kNameWidth - 20, 0, 120);
  AddValue(name,
           absl::StrCat(Fit(value, 20, Align::kLeft),
                        Sparkline(history, width, options.charset)),
           lines);
}

void AddRates(const VmTrend& vm, const ViewOptions& options,
              std::vector<Line>* lines) {
  if (!vm.rates) {
    AddValue("rates", "known from the second sample on", lines);
    return;
  }
  const VmRates& rates = *vm.rates;
  AddTrend("dirty", absl::StrCat(CompactNumber(rates.dirty_pages), " pages/s"),
           vm.dirty_pages, options, lines);
  AddTrend("faults", absl::StrCat(CompactNumber(rates.faults), "/s"), vm.faults,
           options, lines);
  AddTrend("stalls", CompactShare(rates.stall_ratio), vm.stall_ratio, options,
           lines);
  AddValue("accesses",
           absl::StrCat(CompactNumber(rates.accesses), "/s, writes ",
                        CompactNumber(rates.writes), "/s, TLB flushes ",
                        CompactNumber(rates.tlb_flushes), "/s"),
           lines);
  std::vector<std::pair<std::string, double>> causes(rates.stalls.begin(),
                                                     rates.stalls.end());
  std::stable_sort(
      causes.begin(), causes.end(),
      [](const auto& a, const auto& b) { return a.second > b.second; });
  for (const auto& [cause, ratio] : causes) {
    std::string name = cause;
    std::replace(name.begin(), name.end(), '_', ' ');
    const double part = rates.stall_ratio > 0 ? ratio / rates.stall_ratio : 0;
    AddValue("  " + name,
             absl::StrCat(Fit(CompactShare(ratio), 6, Align::kRight), " ",
                          Bar(part, 22)),
             lines);
  }
}

void AddLog(const VmSample& vm, std::vector<Line>* lines) {
  if (!vm.log) {
    AddValue("dirty log", "off", lines);
    return;
  }
  const LogSample& log = *vm.log;
  AddValue("dirty log",
           absl::StrCat("owner ", Printable(log.owner), ", lease ",
                        FormatTime(log.lease), " until ",
                        TimeOfDay(log.lease_expire_time), " UTC"),
           lines);
  AddValue("pages",
           absl::StrCat(FormatCount(log.open_page_count), " open, ",
                        FormatCount(log.sealed_page_count), " sealed, ",
                        FormatCount(log.in_flight_page_count),
                        " in flight; epoch ", log.open_epoch),
           lines);
}

}  // namespace

int WidthOf(const std::string& text) {
  return static_cast<int>(
      std::count_if(text.begin(), text.end(), BeginsCharacter));
}

std::vector<Line> ViewOverview(const TopModel& model,
                               const ViewOptions& options) {
  std::vector<Line> lines = {Head(model, options), Summary(model, options), {}};
  const std::vector<const VmTrend*> vms =
      Sorted(model, options.sort, options.order);
  const std::vector<PlacedColumn> columns = ColumnsFor(options.width);
  lines.push_back(ColumnTitles(columns, options));
  std::vector<Line> notes = Notes(vms, options.width);
  size_t first = 0;
  size_t shown = vms.size();
  if (options.height > 0) {
    const int space = options.height - static_cast<int>(lines.size()) -
                      (options.help.empty() ? 0 : 1);
    // The notes have what the VMs leave, or half of the screen.
    const int rows = static_cast<int>(vms.size());
    Shorten(std::max(space - rows, options.height / 2 - 2), &notes);
    shown = static_cast<size_t>(
        std::clamp(space - static_cast<int>(notes.size()), 1, rows + 1));
    shown = std::min(shown, vms.size());
    if (shown < vms.size()) {
      // One line says how many VMs are missing; the selected one is shown.
      shown = std::max<size_t>(shown, 2) - 1;
      for (size_t at = 0; at < vms.size(); ++at) {
        if (vms[at]->sample.uid == options.selected && at >= shown) {
          first = at - shown + 1;
        }
      }
    }
  }
  for (size_t at = first; at < first + shown; ++at) {
    lines.push_back(Row(*vms[at], columns, options));
  }
  if (shown < vms.size()) {
    lines.push_back(
        {{absl::StrCat("... ", vms.size() - shown, " more VMs"), Style::kDim}});
  }
  if (vms.empty() && model.newest()) {
    lines.push_back({{"there is no VM", Style::kDim}});
  }
  lines.insert(lines.end(), notes.begin(), notes.end());
  return Framed(std::move(lines), options);
}

std::vector<Line> ViewDetail(const TopModel& model,
                             const ViewOptions& options) {
  std::vector<Line> lines = {Head(model, options), Summary(model, options), {}};
  const VmTrend* const vm = model.FindVm(options.selected);
  if (vm == nullptr) {
    lines.push_back({{"the VM does not exist any more", Style::kWarning}});
    return Framed(std::move(lines), options);
  }
  const VmSample& sample = vm->sample;
  lines.push_back(
      {{absl::StrCat(sample.id, ": ", sample.mmu, ", ", sample.vcpu_count,
                     " vCPUs ", sample.vcpu_state, ", ",
                     FormatBytes(sample.memory_size_bytes)),
        Style::kTitle}});
  if (sample.paused_since && sample.pause_expire_time) {
    AddValue(
        "paused",
        absl::StrCat("since ", TimeOfDay(*sample.paused_since), " UTC, until ",
                     TimeOfDay(*sample.pause_expire_time), " UTC"),
        &lines);
  }
  AddRates(*vm, options, &lines);
  AddLog(sample, &lines);
  AddValue("mapped",
           absl::StrCat(FormatCount(sample.statistic("pages_1g")), " of 1G, ",
                        FormatCount(sample.statistic("pages_2m")), " of 2M, ",
                        FormatCount(sample.statistic("pages_4k")), " of 4K"),
           &lines);
  const std::vector<Line> notes = Notes({vm}, options.width);
  lines.insert(lines.end(), notes.begin(), notes.end());
  return Framed(std::move(lines), options);
}

std::string PlainText(const std::vector<Line>& lines) {
  std::string text;
  for (const Line& line : lines) {
    std::string one;
    for (const Span& span : line) one += span.text;
    absl::StripTrailingAsciiWhitespace(&one);
    absl::StrAppend(&text, one, "\n");
  }
  return text;
}

}  // namespace mmud::client
