{{- define "weir.selector" -}}
app.kubernetes.io/name: weir-control-plane
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "weir.cniSelector" -}}
app.kubernetes.io/name: weir-cni
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "weir.cniLabels" -}}
{{ include "weir.cniSelector" . }}
app.kubernetes.io/part-of: weir
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/part-of: weir
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
