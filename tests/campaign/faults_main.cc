// ./dev campaign faults: every backend under every kind of fault.
#include "campaign/faults.h"

int main(int argc, char** argv) {
  return terrace::campaign::run_campaign(
      "faults", argc, argv, [](std::uint64_t seed, terrace::campaign::Figures& figures) {
        terrace::campaign::run_faults(seed, 100, figures);
      });
}
