// The heat map of guest memory as SVG, for a page with PageStyle().

#ifndef CLIENT_WORKING_SET_HEAT_MAP_H_
#define CLIENT_WORKING_SET_HEAT_MAP_H_

#include <string>

#include "client/working_set/age_scale.h"
#include "client/working_set/picture.h"

namespace mmud::client {

// A heading and one <svg> element for each memslot. Addresses go along the rows
// and then down. All cells of a colour are one path, in which neighbours in a
// row are one rectangle.
std::string RenderHeatMap(const WorkingSetPicture& picture,
                          const AgeScale& scale);

// What the colours mean, as a list.
std::string RenderHeatLegend(const AgeScale& scale);

// A <table> with the memory of all cells of each colour.
std::string RenderHeatTable(const WorkingSetPicture& picture,
                            const AgeScale& scale);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_HEAT_MAP_H_
