#pragma once
// The runs of vectors/gptq.safetensors, as their description lists them.

#include <anybit/core/types.hpp>

namespace test_support {

struct GptqRun {
  const char* name;
  int bits;
  bool sym;
  int group;  // -1: whole row
  bool act_order, static_groups, mse;
  float damp;
  anybit::Index block;
  double rel_err, rel_err_rtn;
};

inline constexpr GptqRun gptq_runs[] = {
    {"A.00", 2, false, 32, false, false, false, 0.01f, 128, 0.0388639533, 0.174469128},
    {"A.01", 2, false, 64, true, false, false, 0.01f, 128, 0.017854664, 0.229170178},
    {"A.02", 2, true, 128, false, true, false, 0.01f, 128, 0.0763234065, 0.400319009},
    {"A.03", 2, false, -1, true, false, true, 0.01f, 128, 0.0180613698, 0.181017676},
    {"A.04", 3, false, 64, false, false, false, 0.01f, 128, 0.00656978945, 0.0473215845},
    {"A.05", 3, false, 128, true, true, false, 0.01f, 128, 0.0039966561, 0.0719763056},
    {"A.06", 3, true, 32, true, false, true, 0.01f, 128, 0.00256231376, 0.0341359233},
    {"A.07", 3, true, -1, false, false, false, 0.01f, 128, 0.0193603494, 0.153445563},
    {"A.08", 4, false, 128, false, false, false, 0.01f, 128, 0.00164057293, 0.0145616668},
    {"A.09", 4, true, 128, true, false, false, 0.01f, 128, 0.00148724298, 0.0306401815},
    {"A.10", 4, true, 64, false, true, true, 0.01f, 128, 0.0018292308, 0.0140139695},
    {"A.11", 4, false, 32, true, true, true, 0.01f, 128, 0.000438062642, 0.00625863501},
    {"A.12", 4, true, -1, true, false, false, 0.01f, 128, 0.00216288728, 0.0433086333},
    {"A.13", 8, false, 64, true, false, false, 0.01f, 128, 1.93120532e-06, 2.99785304e-05},
    {"A.14", 8, true, 128, false, false, false, 0.01f, 128, 9.75495706e-06, 8.22753802e-05},
    {"A.15", 4, false, 64, false, false, false, 0.05f, 128, 0.00130392954, 0.0088540461},
    {"A.16", 4, false, 64, false, false, false, 0.01f, 64, 0.00107530125, 0.0088540461},
    {"A.17", 4, false, 64, false, false, false, 0.01f, 128, 0.00111822812, 0.0088540461},
    {"B.00", 2, false, 40, false, false, true, 0.01f, 128, 0.0197470924, 0.110205987},
    {"B.01", 2, true, -1, false, false, false, 0.01f, 128, 0.0523162406, 0.313511357},
    {"B.02", 3, false, 40, true, false, false, 0.01f, 128, 0.0031335287, 0.0311299835},
    {"B.03", 3, true, 100, false, true, false, 0.01f, 128, 0.00777085835, 0.0588790786},
    {"B.04", 3, false, -1, true, false, true, 0.01f, 128, 0.00388837243, 0.0373908991},
    {"B.05", 4, false, 40, false, false, false, 0.01f, 128, 0.000865718613, 0.00790998522},
    {"B.06", 4, false, 100, true, false, false, 0.01f, 128, 0.000940736108, 0.0111589717},
    {"B.07", 4, true, 40, true, true, false, 0.01f, 128, 0.000987832808, 0.0110395834},
    {"B.08", 4, false, -1, false, false, false, 0.01f, 128, 0.00150828942, 0.0147192304},
    {"B.09", 4, true, 100, false, false, true, 0.01f, 128, 0.00161443021, 0.0130189302},
    {"B.10", 8, true, -1, true, false, false, 0.01f, 128, 5.51620019e-06, 6.43263936e-05},
    {"B.11", 8, false, 40, false, true, false, 0.01f, 128, 3.01227759e-06, 2.55552868e-05},
    {"C.00", 2, false, 128, false, false, false, 0.01f, 128, 0.233879092, 0.294379688},
    {"C.01", 2, true, 64, true, true, false, 0.01f, 128, 0.0215435562, 0.313967657},
    {"C.02", 3, false, 32, false, false, false, 0.01f, 128, 0.0267370339, 0.0370741227},
    {"C.03", 3, true, 64, false, false, false, 0.01f, 128, 0.0509461158, 0.06697293},
    {"C.04", 3, false, 128, true, false, false, 0.01f, 128, 0.00314769683, 0.0629107683},
    {"C.05", 3, false, -1, false, false, false, 0.01f, 128, 0.0805173046, 0.125954526},
    {"C.06", 4, false, 128, true, true, false, 0.01f, 128, 0.00067596697, 0.0139019284},
    {"C.07", 4, true, 32, false, true, false, 0.01f, 128, 0.00636045164, 0.0109279598},
    {"C.08", 4, true, 128, false, false, false, 0.01f, 128, 0.0119594948, 0.0184711484},
    {"C.09", 4, false, -1, true, false, false, 0.01f, 128, 0.00174735177, 0.0442178203},
    {"C.10", 4, true, -1, false, false, true, 0.01f, 128, 0.024538879, 0.0365387079},
    {"C.11", 8, false, 32, true, false, true, 0.01f, 128, 1.4934121e-06, 3.20220999e-05},
    {"C.12", 8, true, 64, false, true, true, 0.01f, 128, 0.000226252433, 0.000629358558},
    {"C.13", 4, false, 64, false, false, true, 0.01f, 128, 0.00811782286, 0.0115199898},
};

}  // namespace test_support
