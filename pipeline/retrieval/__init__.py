"""First-stage retrieval: BM25, random candidates and imported lists."""
