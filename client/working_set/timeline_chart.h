// The working set over time as SVG, for a page with PageStyle().

#ifndef CLIENT_WORKING_SET_TIMELINE_CHART_H_
#define CLIENT_WORKING_SET_TIMELINE_CHART_H_

#include <cstddef>
#include <string>

#include "client/working_set/picture.h"

namespace mmud::client {

// The number of windows that have a colour of their own; the next have the same
// ones again. Each line is named at its end.
inline constexpr size_t kWindowColours = 6;

// One <svg> element: a line for each window and an area for the young memory.
// A line has a gap where its size is not known. "" for fewer than two points.
std::string RenderTimeline(const WorkingSetPicture& picture);

// A <table> of the last, the least and the largest size of each line.
std::string RenderTimelineTable(const WorkingSetPicture& picture);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_TIMELINE_CHART_H_
