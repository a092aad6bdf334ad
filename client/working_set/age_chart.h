// The histogram of ages as SVG, for a page with PageStyle().

#ifndef CLIENT_WORKING_SET_AGE_CHART_H_
#define CLIENT_WORKING_SET_AGE_CHART_H_

#include <string>

#include "client/working_set/age_scale.h"
#include "client/working_set/picture.h"

namespace mmud::client {

// One <svg> element: a bar for each generation, youngest first, in the colour
// of its least age, and one for memory that was never found young.
std::string RenderAgeChart(const WorkingSetPicture& picture,
                           const AgeScale& scale);

// The same numbers as a <table>.
std::string RenderAgeTable(const WorkingSetPicture& picture);

}  // namespace mmud::client

#endif  // CLIENT_WORKING_SET_AGE_CHART_H_
