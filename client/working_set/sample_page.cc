// Prints a view of SamplePicture(): `sample_page html NAME`, where NAME is the
// VM's, or `sample_page text NAME`, or `sample_page colour NAME`.

#include <iostream>
#include <string>

#include "client/working_set/html_view.h"
#include "client/working_set/picture.h"
#include "client/working_set/sample_picture.h"
#include "client/working_set/terminal_view.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: sample_page html|text|colour NAME\n";
    return 2;
  }
  const std::string form = argv[1];
  const mmud::client::WorkingSetPicture picture =
      mmud::client::SamplePicture(argv[2]);
  if (form == "html") {
    std::cout << mmud::client::ViewWorkingSetAsHtml(picture);
  } else {
    std::cout << mmud::client::ViewInTerminal(
        picture,
        {.cells_per_line = 128,
         .colour = form == "colour" ? mmud::client::TextColour::k256
                                    : mmud::client::TextColour::kNone});
  }
  return 0;
}
