import { Dashboard } from '@grafana/schema';
import * as timeseries from './node_modules/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen';
import * as stat from './node_modules/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen';
import * as table from './node_modules/@grafana/schema/dist/types/raw/composable/table/panelcfg/x/types.gen';
import * as bargauge from './node_modules/@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/types.gen';
import * as statetimeline from './node_modules/@grafana/schema/dist/types/raw/composable/statetimeline/panelcfg/x/types.gen';

export interface Grafana {
  dashboard: Dashboard;
  options: {
    timeseries: timeseries.Options;
    stat: stat.Options;
    table: table.Options;
    bargauge: bargauge.Options;
    'state-timeline': statetimeline.Options;
  };
  custom: {
    timeseries: timeseries.FieldConfig;
    table: table.FieldConfig;
    'state-timeline': statetimeline.FieldConfig;
  };
}
