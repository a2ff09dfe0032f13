"""The data: one reader for PASCAL_MT trees, real or rendered, its transforms, and a doctor that reads a tree and says what is there."""
