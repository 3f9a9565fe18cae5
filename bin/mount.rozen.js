#!/usr/bin/env node
import '../dist/cli/mount-helper-main.js';
